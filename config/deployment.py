"""What a deployment must set beyond what works on a laptop: said by `weighbridge doctor`, and warned of at start."""

from config.settings import Settings


def deployment_problems(settings: Settings) -> dict[str, str]:
    """name of a setting → what is wrong with it where several processes or machines share the work."""
    where = (
        "on a platform whose disks vanish daily"
        if settings.dyno
        else "with PostgreSQL, which several machines share"
    )
    if not settings.dyno and settings.database_url.startswith("sqlite"):
        return {}
    found = {}
    if not settings.secret_key_is_set:
        found["SECRET_KEY"] = (
            f"is not set {where}: each process makes one of its own, and sessions and signed addresses of one are nothing"
            " to the others. Set it to 32 or more random characters."
        )
    if settings.artifact_store == Settings.artifact_store or (
        settings.dyno and "://" not in settings.artifact_store
    ):
        found["ARTIFACT_STORE"] = (
            f"is a folder of this machine ({settings.artifact_store}) {where}: what the worker keeps is missing elsewhere."
            " Set it to s3://BUCKET/PREFIX (or another address that fsspec knows), or to the path of a shared folder."
        )
    return found
