# One image for web, worker and release: the command chooses.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

COPY . .
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation -e .
# Everything that is written goes to var/ (or to the database and the artifact store).
RUN useradd --uid 10001 --no-create-home --home-dir /app/var weighbridge \
    && mkdir -p var && chown weighbridge var \
    && python -m compileall -q .
USER weighbridge

EXPOSE 8000
CMD ["gunicorn", "wsgi:app"]
