"""Which URLs may be fetched: named hosts, with or without a port or a prefix of the path."""

import pytest

from config.settings import SCALE_RESULT_HOSTS
from pipeline.http.client import DownloadRefused, check_allowed

BUCKET = ("s3-us-west-1.amazonaws.com/scaleapi-results", "127.0.0.1:9000/a/b")


@pytest.mark.parametrize(
    "url",
    [
        "https://s3-us-west-1.amazonaws.com/scaleapi-results/00000000-a07c",
        "https://S3-US-WEST-1.amazonaws.com:443/scaleapi-results/a/b?X-Amz-Signature=1",
        "https://s3-us-west-1.amazonaws.com/%73caleapi-results/a",
        "https://s3-us-west-1.amazonaws.com/other/../scaleapi-results/a",
        "http://127.0.0.1:9000/a/b/c",
    ],
)
def test_a_path_below_a_named_prefix_is_allowed(url: str) -> None:
    check_allowed(url, BUCKET)


@pytest.mark.parametrize(
    "url",
    [
        "https://s3-us-west-1.amazonaws.com/other/scaleapi-results/a",
        "https://s3-us-west-1.amazonaws.com/scaleapi-results",
        "https://s3-us-west-1.amazonaws.com/scaleapi-results-of-others/a",
        "https://s3-us-west-1.amazonaws.com/SCALEAPI-RESULTS/a",
        "https://s3-us-west-1.amazonaws.com//scaleapi-results/a",
        "https://s3-us-west-1.amazonaws.com/scaleapi-results/../other/a",
        "https://s3-us-west-1.amazonaws.com/scaleapi-results/%2e%2e/other/a",
        "https://s3-us-west-1.amazonaws.com/scaleapi-results/..%2fother/a",
        "https://s3-us-west-1.amazonaws.com/scaleapi-results/%252e%252e/other/a",
        "https://s3-us-west-1.amazonaws.com/scaleapi-results/..%5cother/a",
        "https://s3-us-west-1.amazonaws.com",
        "https://127.0.0.1:9000/a/c",
    ],
)
def test_any_other_path_of_the_host_is_refused(url: str) -> None:
    with pytest.raises(DownloadRefused, match=r"the path at .* is not among those that are allowed"):
        check_allowed(url, BUCKET)


def test_a_prefix_does_not_allow_the_host_on_another_port_or_by_http() -> None:
    for url in (
        "http://s3-us-west-1.amazonaws.com/scaleapi-results/a",
        "https://s3-us-west-1.amazonaws.com:444/scaleapi-results/a",
        "https://127.0.0.1/a/b/c",
    ):
        with pytest.raises(DownloadRefused):
            check_allowed(url, BUCKET)


@pytest.mark.parametrize("bucket", ["scaleapi-results", "scaleapi-attachments"])
@pytest.mark.parametrize("region", ["", ".us-west-1", "-us-west-1", ".us-west-2", "-ap-northeast-1"])
def test_the_defaults_cover_every_form_of_an_address_of_scales_buckets(bucket: str, region: str) -> None:
    check_allowed(f"https://{bucket}.s3{region}.amazonaws.com/00000000-a07c", SCALE_RESULT_HOSTS)
    check_allowed(f"https://s3{region}.amazonaws.com/{bucket}/00000000-a07c", SCALE_RESULT_HOSTS)
    with pytest.raises(DownloadRefused):
        check_allowed(f"https://s3{region}.amazonaws.com/another/{bucket}", SCALE_RESULT_HOSTS)


def test_the_default_host_of_newer_results_is_allowed() -> None:
    check_allowed("https://s3.labeling-data.net/scale-cds-public-us-west-2/a", SCALE_RESULT_HOSTS)
