"""Reading forms out of a page."""

from micromegas_jupyter.demo.provider.scripted_person import parse_forms

PAGE = """
<input name="outside" value="x">
<form method="POST" action="/next?a=1&amp;b=2">
  <input type="hidden" name="t" value="&lt;v&gt;"><input type="text" name="empty">
  <button name="decision" value="allow">Allow</button><input type="submit" name="decision" value="deny">
  <button>No name</button>
</form>
<form><input name="q" value="1"></form>
"""


def test_fields_buttons_and_addresses_are_found() -> None:
    first, second = parse_forms(PAGE, page_url="http://127.0.0.1:1/page?c=3")

    assert first.action == "http://127.0.0.1:1/next?a=1&b=2"
    assert first.fields == {"t": "<v>", "empty": ""}
    assert first.buttons == [("decision", "allow"), ("decision", "deny")]
    assert second.action == "http://127.0.0.1:1/page?c=3"
