# One image for web, worker and release: the command chooses.
# The digest fixes the content. For a newer one: docker buildx imagetools inspect python:3.13-slim-trixie
FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

# Only var/ is written to, also temporary files: the root file system and /tmp may be read-only.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TMPDIR=/app/var
WORKDIR /app

# The other files hold what some export formats, and SENTRY_DSN and OTEL_EXPORTER_OTLP_ENDPOINT, need.
COPY requirements.txt requirements-exports.txt requirements-telemetry.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt \
    && pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-exports.txt -r requirements-telemetry.txt

COPY . .
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation -e .
# COPY keeps the modes of the checkout, which a umask of 077 closes to the service's user.
RUN useradd --uid 10001 --no-create-home --home-dir /app/var weighbridge \
    && python -m compileall -q . && chmod -R a+rX,go-w . \
    && mkdir -p var && chown weighbridge var && chmod 700 var
USER weighbridge

EXPOSE 8000
CMD ["gunicorn", "wsgi:app"]
