"""`python -m tests.exports.export_once DATABASE_URL STORE HOST OUT`: one export, in a process that a test kills."""

import sys

from config import Settings
from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from pipeline.bootstrap import build_service
from pipeline.datasets import versions

database_url, store, host, out = sys.argv[1:]
service = build_service(
    Settings(database_url=database_url, artifact_store=store, secret_key="secret", attachment_hosts=(host,))
)
with service.reader.begin() as connection:
    version = versions.find(connection, "all")
format_ = find_format("yolo-detect")
assert format_ is not None
print("ready", flush=True)
write_export(service, version, format_, Options(images="copy"), out)
