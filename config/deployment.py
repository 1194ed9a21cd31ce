"""Settings that a deployment needs and a laptop does not. `weighbridge doctor` and the start of each process report them."""

from config.settings import Settings


def deployment_problems(settings: Settings) -> dict[str, str]:
    """Return name of a setting → problem, if several processes or machines share the work."""
    if not settings.dyno and settings.database_url.startswith("sqlite"):
        return {}
    where = "on a platform that erases its disks daily" if settings.dyno else "with PostgreSQL"
    found = {}
    if not settings.secret_key_is_set:
        found["SECRET_KEY"] = (
            f"is not set {where}: every process generates its own, so sessions and URLs signed by one are rejected by the"
            " others. Set it to 32 or more random characters."
        )
    is_local = settings.dyno and "://" not in settings.artifact_store
    if settings.artifact_store == Settings.artifact_store or is_local:
        found["ARTIFACT_STORE"] = (
            f"is a folder of this machine ({settings.artifact_store}) {where}: files that the worker stores are missing on"
            " other machines. Set it to s3://BUCKET/PREFIX, another URL that fsspec knows, or the path of a shared folder."
        )
    return found


MIN_SECRET_LENGTH = 16


def weak_secrets(settings: Settings) -> dict[str, str]:
    """Return the secrets that can be guessed: name of the setting → what is wrong, without a part of the value."""
    secrets = {
        "API_TOKEN": [settings.api_token],
        "METRICS_TOKEN": [settings.metrics_token],
        "SECRET_KEY": [settings.secret_key if settings.secret_key_is_set else None],
        "SCALE_LIVE_CALLBACK_KEYS": settings.scale_live_callback_keys,
        "SCALE_TEST_CALLBACK_KEYS": settings.scale_test_callback_keys,
    }
    return {
        name: f"has fewer than {MIN_SECRET_LENGTH} characters and can be guessed"
        for name, values in secrets.items()
        if any(value and len(value) < MIN_SECRET_LENGTH for value in values)
    }
