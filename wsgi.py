"""What gunicorn and the `flask` command load."""

import sys

from app.application import create_app
from config import SettingsError, load_settings
from config.private_files import make_new_files_private

make_new_files_private()
try:
    app = create_app(load_settings(process="web"))
except SettingsError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)
