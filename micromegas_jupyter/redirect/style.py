"""The pages' one style sheet, and its hash, by which the content security policy allows it and nothing else.

Both stand together so that they cannot drift apart; the pages themselves are `pages`'s.
"""

import base64
import hashlib

# Contrast of text on its background is at least 4.5:1 in both schemes (WCAG 2.2, 1.4.3).
STYLE = (
    ":root{color-scheme:light dark;--page:#f5f6f8;--card:#fff;--text:#1c2128;--quiet:#57606a;--good:#1a7f37;"
    "--bad:#b42318;--line:#d8dee4}"
    "@media(prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--text:#e6edf3;--quiet:#9da7b3;"
    "--good:#3fb950;--bad:#ff8177;--line:#30363d}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--page);"
    "color:var(--text);font:1rem/1.5 system-ui,sans-serif}"
    "main{max-width:34rem;width:100%;padding:2rem;background:var(--card);border:1px solid var(--line);"
    "border-radius:.75rem;text-align:center}"
    "h1{font-size:1.35rem;margin:.75rem 0}p{margin:.5rem 0;overflow-wrap:anywhere}.hint{color:var(--quiet)}"
    ".mark{display:inline-grid;place-items:center;width:3rem;height:3rem;border-radius:50%;border:2px solid;"
    "font-size:1.5rem;font-weight:700}.success .mark{color:var(--good)}.failure .mark{color:var(--bad)}"
)

STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
