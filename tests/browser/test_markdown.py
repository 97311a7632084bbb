"""What an agent writes as Markdown becomes nodes and never markup; in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from brokers import FakeBackend, broker
from browser.screen import Screen

pytestmark = pytest.mark.browser

LEAVES = 'target="_blank" rel="noopener noreferrer"'
CODE = 'class="code" tabindex="0"'

CASES = [
    ("# One\n\n## Two ##", "<h3>One</h3><h4>Two</h4>"),
    (
        "a *b* **c** `d` ~~e~~ _f_",
        "<p>a <em>b</em> <strong>c</strong> <code>d</code> <del>e</del> <em>f</em></p>",
    ),
    ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
    ("snake_case_name and 2 * 3 * 4", "<p>snake_case_name and 2 * 3 * 4</p>"),
    (r"\*not\*", "<p>*not*</p>"),
    ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("- a\n  more", "<ul><li>a\nmore</li></ul>"),
    ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
    ("---", "<hr>"),
    (
        "| a | b |\n|---|--:|\n| 1 | `2` |",
        '<div class="scroll" tabindex="0"><table><thead><tr><th>a</th><th>b</th></tr></thead>'
        "<tbody><tr><td>1</td><td><code>2</code></td></tr></tbody></table></div>",
    ),
    (
        "```py\n<b>x</b>\n\n# no\n```\nafter",
        f'<pre {CODE} data-language="py"><code>&lt;b&gt;x&lt;/b&gt;\n\n# no</code></pre><p>after</p>',
    ),
    ("```\nopen", f"<pre {CODE}><code>open</code></pre>"),
    (
        '[a](https://b.example/c_(d) "t")',
        f'<p><a href="https://b.example/c_(d)" {LEAVES}><span>a</span></a></p>',
    ),
    (
        "see https://b.example/x.",
        f'<p>see <a href="https://b.example/x" {LEAVES}>https://b.example/x</a>.</p>',
    ),
    (
        "![an image](https://b.example/x.png)",
        f'<p><a href="https://b.example/x.png" {LEAVES}><span>an image</span></a></p>',
    ),
    ("[a](javascript:alert(1))", "<p><span><span>a</span></span></p>"),
    ("[a](data:text/html,x)", "<p><span><span>a</span></span></p>"),
    ("[a](//b.example)", "<p><span><span>a</span></span></p>"),
    ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
    ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
]

HOSTILE = {
    "emphasis that never closes": "**a " * 3000 + "*b " * 3000,
    "backticks": "`" * 7000 + "a" + "``" * 400,
    "brackets": "[" * 7000 + "](" * 500,
    "deep quotes": ">" * 5000 + " a",
    "deep lists": "\n".join(" " * depth + "- a" for depth in range(0, 800, 2)),
    "one long line": "word " * 200_000,
    "pipes": "|" * 5000 + "\n" + "|-" * 2500,
    "rules": "- " * 10_000,
}


@pytest.fixture
async def blank(fake: FakeBackend, screen: Screen) -> AsyncIterator[Screen]:
    """A page of the broker that runs nothing by itself, under the same policy."""
    async with broker(fake) as running:
        await screen.page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        await screen.page.goto(f"{running.url}/ui/tokens.css")
        yield screen


async def test_blocks_become_nodes(blank: Screen) -> None:
    given = [text for text, _expected in CASES]
    made = await blank.evaluate(
        """async (texts) => {
          const { GrowingMarkdown } = await import('/ui/markdown.js');
          return texts.map((text) => {
            const view = new GrowingMarkdown();
            view.add(text);
            return view.element.innerHTML;
          });
        }""",
        given,
    )
    assert dict(zip(given, made, strict=True)) == dict(CASES)


async def test_pieces_give_what_the_whole_gives(blank: Screen) -> None:
    differing = await blank.evaluate(
        """async (text) => {
          const { GrowingMarkdown } = await import('/ui/markdown.js');
          const make = (size) => {
            const view = new GrowingMarkdown();
            for (let at = 0; at < text.length; at += size) view.add(text.slice(at, at + size));
            return view.element.innerHTML;
          };
          const whole = make(text.length);
          return [1, 2, 3, 7, 31, 100].filter((size) => make(size) !== whole);
        }""",
        "\n\n".join(text for text, _expected in CASES[:-8]),
    )
    assert differing == []


async def test_hostile_text_costs_little(blank: Screen) -> None:
    took_ms = await blank.evaluate(
        """async (texts) => {
          const { blocks } = await import('/ui/markdown.js');
          return Object.fromEntries(Object.entries(texts).map(([name, text]) => {
            const began = performance.now();
            blocks(text);
            return [name, Math.round(performance.now() - began)];
          }));
        }""",
        HOSTILE,
    )
    assert {name: ms for name, ms in took_ms.items() if ms > 1500} == {}
