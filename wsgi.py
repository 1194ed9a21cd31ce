"""What gunicorn and the `flask` command load."""

import sys

from app import create_app
from config import SettingsError

try:
    app = create_app()
except SettingsError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)
