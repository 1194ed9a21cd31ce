"""`weighbridge up` and `weighbridge demo`: the whole service in one terminal, as real processes."""

import re
import signal
import socket
from collections.abc import Callable

import pytest
import requests

from config import load_settings
from config.development import development_environment, sandbox_environment
from tests.app.commands.folder import Folder, Terminal
from tests.servers import command_line, has_ended, wait_until

Start = Callable[..., Terminal]
STOPS_WITHIN = 30.0


def test_the_first_start_tells_the_whole_chain_and_the_second_does_not(folder: Folder, start: Start) -> None:
    first = start("weighbridge", "up")
    first.says("Finished in")
    output = re.findall(r"demo +\| (.*)", first.text)
    polygons = re.match(r"1\. Created a polygon task at the sandbox: (\w+) \(unique_id demo-", output[0])
    assert polygons
    assert re.match(
        r"2\. Received its callback: completed, \d+ annotations \(\d+ × polygon .*delivery ", output[1]
    )
    assert f"(unique_id polygons-to-boxes.boxes.{polygons[1]}, layers: " in output[2]
    assert re.match(r"4\. Received the box task's callback: completed, \d+ annotations \(.*box ", output[3])
    assert first.ends_after(signal.SIGINT, STOPS_WITHIN) == 0

    second = start("weighbridge", "up")
    second.says("Sandbox at")
    second.says("Booting worker")
    demo = folder.run("weighbridge", "demo")
    assert demo.returncode == 0, demo.stderr
    again = folder.run("weighbridge", "demo")
    assert "4. Received the box task's callback" in again.stdout
    assert "demo" not in second.text
    assert second.ends_after(signal.SIGTERM, STOPS_WITHIN) == 0


def test_another_command_means_the_running_service(folder: Folder, start: Start) -> None:
    """Nothing is set in the second terminal: neither ports nor keys."""
    up = start("weighbridge", "up")
    up.says("Finished in")
    for name in ("PORT", "SANDBOX_PORT"):
        del folder.env[name]
    doctor = folder.run("weighbridge", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "problem" not in doctor.stdout
    token = folder.run("flask", "tokens", "create", "me").stdout.strip()
    curl = folder.run(
        "curl",
        "-sS",
        "-H",
        f"Authorization: Bearer {token}",
        f"http://127.0.0.1:{folder.ports[0]}/api/v1/tasks",
    )
    assert '"polygonannotation"' in curl.stdout
    second = folder.run("weighbridge", "up")
    assert second.returncode == 1
    assert "is already running in this folder" in second.stderr
    assert up.ends_after(signal.SIGINT, STOPS_WITHIN) == 0
    alone = folder.run("weighbridge", "demo")
    assert alone.returncode == 1
    assert "make run" in alone.stderr


def test_a_task_that_names_no_callback_url_is_received_as_well(folder: Folder, start: Start) -> None:
    up = start("weighbridge", "up")
    up.says("Finished in")
    sandbox = f"http://127.0.0.1:{folder.ports[1]}/v1/task/categorization"
    request = {
        "attachment_type": "text",
        "attachment": "one",
        "categories": ["a", "b"],
        "instruction": "Which?",
    }
    task = requests.post(sandbox, json=request, auth=("live_sandbox", ""), timeout=10).json()["task_id"]
    wait_until(lambda: task in folder.run("flask", "tasks", "list").stdout)


@pytest.mark.parametrize(("setting", "number"), [("PORT", 0), ("SANDBOX_PORT", 1)])
def test_a_taken_port_is_an_error_that_names_the_setting(folder: Folder, setting: str, number: int) -> None:
    with socket.create_server(("127.0.0.1", folder.ports[number])):
        up = folder.run("weighbridge", "up")
    assert up.returncode == 1
    assert re.search(rf"Port {folder.ports[number]} is in use.*`{setting}=\d+ make run`", up.stderr)


def test_one_port_for_both_is_an_error(folder: Folder) -> None:
    up = folder.run("weighbridge", "up", SANDBOX_PORT=folder.env["PORT"])
    assert up.returncode == 1
    assert "PORT and SANDBOX_PORT are both" in up.stderr


def test_a_signal_while_it_starts_is_obeyed(start: Start) -> None:
    up = start("weighbridge", "up")
    up.says("Ctrl-C stops everything")
    assert up.ends_after(signal.SIGINT, STOPS_WITHIN) == 0


def test_a_terminal_that_is_closed_leaves_nothing_running(start: Start) -> None:
    up = start("weighbridge", "up")
    up.says("Finished in")
    up.ends_after(signal.SIGHUP, STOPS_WITHIN)


def test_a_process_that_dies_stops_the_others_and_is_named(start: Start) -> None:
    up = start("weighbridge", "up")
    up.says("Finished in")
    (worker,) = [
        child for child in up.children() if any("celery" in word for word in command_line(child)[:2])
    ]
    children = up.children()
    worker.kill()
    assert up.popen is not None
    assert up.popen.wait(10) == 1
    assert "worker exited with 137" in up.text
    assert not [child for child in children if not has_ended(child)]


def test_what_is_wrong_with_a_setting_is_said_without_a_traceback(folder: Folder) -> None:
    for command in ("up", "doctor", "demo"):
        done = folder.run("weighbridge", command, PORT="many", LOG_LEVEL="loud")
        assert done.returncode == 2
        assert "PORT: Not a valid integer" in done.stderr
        assert "LOG_LEVEL: " in done.stderr
        assert "Traceback" not in done.stderr


def test_sqlite_is_refused_where_disks_vanish(folder: Folder) -> None:
    done = folder.run("weighbridge", "doctor", DYNO="web.1")
    assert done.returncode == 2
    assert "DATABASE_URL is a SQLite file" in done.stderr


def test_a_development_service_uses_keys_of_the_sandbox_whatever_keys_are_set() -> None:
    environment = development_environment(
        {
            "SCALE_API_KEY": "live_of_mine",
            "SCALE_LIVE_CALLBACK_KEYS": "callback_of_mine",
            "SECRET_KEY": "secret",
            "PORT": "9000",
        }
    )
    settings = load_settings(environment)
    assert settings.scale_api_url == "http://127.0.0.1:8001/v1"
    assert settings.scale_api_key == "live_sandbox"
    assert settings.sandbox_api_keys == ("test_sandbox", "live_sandbox")
    assert settings.callback_url == "http://127.0.0.1:9000/callbacks/scale"
    assert settings.scale_live_callback_keys[1:] == (b"callback_of_mine",)
    sandbox = load_settings(sandbox_environment(environment))
    assert sandbox.scale_live_callback_keys == settings.scale_live_callback_keys[:1]
    assert "of_mine" not in str(sandbox_environment(environment))


def test_development_keeps_what_the_user_has_set_and_takes_blank_as_absent() -> None:
    given = {
        "SECRET_KEY": "secret",
        "API_TOKEN": "mine",
        "PUBLIC_URL": "https://tunnel.example",
        "SCALE_API_URL": "https://api.scale.com/v1",
        "SCALE_LIVE_CALLBACK_KEYS": " ",
    }
    settings = load_settings(development_environment(given))
    assert settings.api_token == "mine"
    assert settings.public_url == "https://tunnel.example"
    assert settings.scale_api_url == "https://api.scale.com/v1"
    assert settings.scale_live_callback_keys


def test_development_keys_are_this_folders_own() -> None:
    one, other = (
        load_settings(development_environment({"SECRET_KEY": secret})) for secret in ("secret", "another")
    )
    assert one.api_token != other.api_token
    assert one.scale_live_callback_keys != other.scale_live_callback_keys
    assert set(one.scale_live_callback_keys).isdisjoint(one.scale_test_callback_keys)


def test_the_demonstration_never_goes_to_scale_itself(folder: Folder) -> None:
    demo = folder.run(
        "flask",
        "demo",
        SCALE_API_URL="https://api.scale.com/v1",
        SCALE_API_KEY="live_key",
        PUBLIC_URL="https://weighbridge.example",
    )
    assert demo.returncode == 1
    assert "cost money" in demo.stderr
