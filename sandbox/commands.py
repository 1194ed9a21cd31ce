"""`flask sandbox …`: run a stand-in for Scale, and be its people from the command line."""

from pathlib import Path

import click

from config import load_settings
from sandbox.settings import SPEEDS, SandboxSettings


@click.group()
def sandbox() -> None:
    """A stand-in for Scale: its API, its annotators, its callbacks."""


@sandbox.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Default: SANDBOX_PORT, 8001. 0 takes a free one."
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--memory", is_flag=True, help="Keep nothing.")
@click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("var/sandbox.db"),
    show_default=True,
)
@click.option(
    "--speed",
    type=click.Choice(SPEEDS),
    default="instant",
    show_default=True,
    help="When tasks of live keys are answered.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Scale's seconds in one of ours.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--callback-url", help="For tasks that name none.")
@click.option("--public-url", help="Where others reach the sandbox, if not where it listens.")
def serve(
    port: int | None,
    host: str,
    memory: bool,
    database: Path,
    speed: str,
    time_scale: float,
    seed: int,
    callback_url: str | None,
    public_url: str | None,
) -> None:
    """Serve until stopped."""
    from sandbox.serve import PortTaken
    from sandbox.serve import serve as serve_until_stopped

    settings = load_settings()
    started_with = SandboxSettings(
        api_keys=settings.sandbox_api_keys,
        live_callback_key=_first(settings.scale_live_callback_keys, SandboxSettings.live_callback_key),
        test_callback_key=_first(settings.scale_test_callback_keys, SandboxSettings.test_callback_key),
        database=None if memory else database,
        speed=speed,
        time_scale=time_scale,
        seed=seed,
        callback_url=callback_url,
    )
    try:
        serve_until_stopped(started_with, host, settings.sandbox_port if port is None else port, public_url)
    except PortTaken as error:
        raise click.ClickException(f"{error} Give another one with --port.") from None


def _first(keys: tuple[bytes, ...], default: str) -> str:
    return keys[0].decode() if keys else default
