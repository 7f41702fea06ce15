"""The messages in docs/troubleshooting.md are those that the code prints."""

import ast
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def texts(node: ast.AST) -> list[str]:
    """The literal parts of a string: one for a constant, several for an f-string."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def quoted() -> list[str]:
    return re.findall(r'^> (.+)$', (REPO / 'docs' / 'troubleshooting.md').read_text(), re.MULTILINE)


def fragments(message: str) -> list[str]:
    """What lies between the places of values, without punctuation that may belong to either side."""
    return [part for piece in message.split('…') if len(part := piece.strip(' .,:;=')) >= 4]


def test_every_quoted_message_is_printed_by_the_code():
    sources = [path for folder in ('projects', 'tools') for path in sorted((REPO / folder).rglob('*.py'))]
    printed = '\n'.join(text for path in sources for node in ast.walk(ast.parse(path.read_text()))
                        if isinstance(node, (ast.Constant, ast.JoinedStr)) for text in texts(node))
    messages = quoted()
    absent = [(message, part) for message in messages for part in fragments(message) if part not in printed]
    assert len(messages) > 40 and absent == []
