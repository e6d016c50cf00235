"""A refusal as the vectors hold it, and the keys that the protocol document publishes."""

from __future__ import annotations

import base64
from typing import Any

# COLONIES-RPC section 1.6.
PUBLISHED = [
    (
        "ddf7f7791208083b6a9ed975a72684f6406a269cfa36f1b1c32045c0a71fff05",
        "3fc05cf3df4b494e95d6a3d297a34f19938f7daa7422ab0d4f794454133341ac",
        "eyJtc2d0eXBlIjogImdldGNvbG9uaWVzbXNnIn0=",
        "e720ff1e24484fba20baead3c7f33e15c6901bdf30f1be6a96634da49684e29c"
        "21c4b48f0ea8bd72a6d88be4416700921e9b48d9bd88392d67350e980dc2ba6901",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000001",
        "2036f5bc759cfb3589fb4e2342bc9b3c843c5ef27dc8ded538de328a7567089b",
        "hello",
        "24ea2d66a639d2b8c973094911a1b5d9ccdb6ee48d94487ecda2407edbbf6f45"
        "13bed23538ec23b13926dc510694564e20639fc4edea1c6c02558d8d2dd24d8c01",
    ),
    (
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140",
        "8a1239501ae5ad811ed1de202778d48556f8977f597b971baa2d4e20deb49dd9",
        "h\u00e9llo w\u00f6rld",
        "20eb69016cc6be2130484d7bd8911234c6ec9d729b65e27d98fe9095870bcd3f"
        "45051db356cb86ba7a7c08fc8dc1e0c981ea20d390c857408eb0db92fc58682d00",
    ),
    (
        "fcc79953d8a751bf41db661592dc34d30004b1a651ffa0725b03ac227641499d",
        "039231c7644e04b6895471dd5335cf332681c54e27f81fac54f9067b3f2c0103",
        "eyJtc2d0eXBlIjogImdldGNvbG9uaWVzbXNnIn0=",
        "82a2287f7fa7aad2f7a476c2b91743d67792c4f1f580f7cad92ecc6c3504bc6f"
        "2f542e984ed0d7d8b5a90a6fc1a381bb18e29dceabb6e97600395d37706732af01",
    ),
    (
        "d6eb959e9aec2e6fdc44b5862b269e987b8a4d6f2baca542d8acaa97ee5e74f6",
        None,
        "hello",
        "e713a1bb015fecabb5a084b0fe6d6e7271fca6f79525a634183cfdb175fe6924"
        "1f4da161779d8e6b761200e1cf93766010a19072fa778f9643363e2cfadd640900",
    ),
]


def bad(why: str, code: str, text: str | bytes, **more: Any) -> dict[str, Any]:
    """A refusal: `text` in the clear where it is text, else in base64."""
    if isinstance(text, bytes):
        return {"why": why, "code": code, "base64": base64.b64encode(text).decode(), **more}
    return {"why": why, "code": code, "text": text, **more}
