"""The page on which a person tries the model."""

import base64
import hashlib
import re
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")


def load() -> tuple[bytes, dict[str, str]]:
    """Returns the page and its headers, which let nothing run or load but what is in it."""
    text = _FILE.read_text("utf-8")
    script, style = (_digests(text, tag) for tag in ("script", "style"))
    policy = [
        "default-src 'none'",
        f"script-src {script}",
        f"style-src {style}",
        # The page's icon, which is none.
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(policy),
        "referrer-policy": "no-referrer",
    }
    return text.encode(), headers


def _digests(text, tag):
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()) for part in parts)
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
