from __future__ import annotations

import pytest

from sidecast_broker.setting_urls import mask_url


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("nats://h:1", "nats://h:1"),
        ("nats://token@h:1", "nats://********@h:1"),
        ("nats://u:p@h,tls://u:p@i", "nats://********@h,tls://********@i"),
        ("nats://u:p@q@h", "nats://********@h"),
    ],
)
def test_masked_urls(url: str, masked: str) -> None:
    assert mask_url(url) == masked
