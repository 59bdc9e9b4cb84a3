"""Reads the public declarations of a C++ header with the ``///`` comments before them.

Knows as much of C++ as the headers in csrc/include use, and fails at what it does not know rather than leave something
out: namespaces, structs and classes, enums, functions with bodies or without, fields, and aliases.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

OUR_NAMESPACE = "torch_safetensors"
_SCOPE = re.compile(
    r"(?:template\s*<[^{;]*>\s*)?(struct|class|enum(?:\s+class)?)\s+([\w:]+)\s*(?:final\s*)?(?::[^:].*)?", re.S
)
_MACRO = re.compile(r"\bTORCH_SAFETENSORS_API\s+")


@dataclass
class Declaration:
    """Something public: its text without a body, its name, and what stands inside of it."""

    text: str
    name: str
    kind: str  # "function", "field", "alias", "struct", "class", "enum"
    comment: str
    #: True where it follows the last one without a comment or a blank line: an overload, documented with it.
    joined: bool = False
    members: list[Declaration] = field(default_factory=list)


@dataclass
class Header:
    """What a header declares in our namespace, and the comment of the namespace."""

    comment: str
    declarations: list[Declaration]


def read_header(text: str) -> Header:
    """The public declarations of a header.

    Raises:
        ValueError: something that this module does not understand, with its line.
    """
    scanner = _Scanner(text)
    declarations = scanner.scope(inside=False, public=True, default_access="public")
    return Header(scanner.namespace_comment, declarations)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.namespace_comment = ""

    def scope(self, *, inside: bool, public: bool, default_access: str) -> list[Declaration]:
        """Everything up to the brace that ends it; only what is visible from outside."""
        found: list[Declaration] = []
        access = default_access
        while True:
            comment, blank = self._comment()
            if self._at_end(inside):
                return found
            label = self._match(r"(public|private|protected)\s*:(?!:)")
            if label:
                access = label[1]
                continue
            namespace = self._match(r"namespace\s+([\w:]*)\s*\{")
            if namespace:
                found += self._namespace(namespace[1], comment)
                continue
            declaration = self._declaration(comment)
            declaration.joined = not comment and not blank and bool(found)
            if access == "public" and public and not declaration.text.startswith("friend"):
                found.append(declaration)

    def _namespace(self, name: str, comment: str) -> list[Declaration]:
        ours = name.split("::")[0] == OUR_NAMESPACE
        if ours and comment:
            self.namespace_comment = comment
        inside = self.scope(inside=True, public=ours, default_access="public")
        return inside if ours else []

    def _declaration(self, comment: str) -> Declaration:
        begin = self._at
        text = self._up_to_body()
        if self._text[self._at] == ";":
            self._at += 1
            return self._described(text, comment)
        scope = _SCOPE.fullmatch(_MACRO.sub("", text))
        if scope:
            self._at += 1
            kind = scope[1].split()[0]
            shown = _tidy(_MACRO.sub("", text))
            if kind == "enum":
                self._at = begin
                body = self._balanced_statement()
                return Declaration(_tidy_lines(body), scope[2], kind, comment)
            members = self.scope(inside=True, public=True, default_access="private" if kind == "class" else "public")
            return Declaration(shown, scope[2], kind, comment, members=members)
        if "(" not in text:  # the initializer of a field
            self._at = begin
            return self._described(self._balanced_statement().rstrip(";"), comment)
        self._braces()
        self._match(r"\s*;")
        return self._described(re.split(r"(?<=[)\w])\s*:(?!:)\s", text, maxsplit=1)[0], comment)

    def _described(self, text: str, comment: str) -> Declaration:
        text = _tidy(_MACRO.sub("", text))
        alias = re.match(r"using (\w+) =", text)
        if alias:
            return Declaration(text, alias[1], "alias", comment)
        using = re.match(r"using ([\w:]+)$", text)
        if using:
            return Declaration(text, using[1].split("::")[-1], "alias", comment)
        function = re.search(r"(~?\w+|operator\S+)\s*\(", text)
        if function:
            return Declaration(text, function[1], "function", comment)
        scope = re.fullmatch(r"(struct|class) (\w+)", text)  # declared, not defined
        if scope:
            return Declaration(text, scope[2], scope[1], comment)
        variable = re.match(r"[^={]*?(\w+)\s*([={].*)?$", text)
        if variable is None:
            raise self._error(f"cannot tell what {text!r} declares")
        return Declaration(text, variable[1], "field", comment)

    def _up_to_body(self) -> str:
        """The text up to the ``;`` or ``{`` that is in no parentheses."""
        begin, depth = self._at, 0
        while self._at < len(self._text):
            character = self._text[self._at]
            if depth == 0 and character in ";{":
                return self._text[begin : self._at].strip()
            depth += {"(": 1, ")": -1}.get(character, 0)
            self._at += 1
        self._at = begin
        raise self._error("a declaration does not end")

    def _balanced_statement(self) -> str:
        """The text up to and with the ``;`` after a pair of braces."""
        begin = self._at
        self._up_to_body()
        self._braces()
        self._up_to_body()
        self._at += 1
        return self._text[begin : self._at]

    def _braces(self) -> None:
        depth = 0
        while self._at < len(self._text):
            depth += {"{": 1, "}": -1}.get(self._text[self._at], 0)
            self._at += 1
            if depth == 0:
                return
        raise self._error("a brace is not closed")

    def _at_end(self, inside: bool) -> bool:
        """Whether the scope ends here, which is one in braces if it is ``inside`` of another."""
        if self._at < len(self._text) and self._text[self._at] != "}":
            return False
        if inside != bool(self._match(r"\}\s*;?")):
            raise self._error("a brace is not closed" if inside else "a brace too many")
        return True

    def _comment(self) -> tuple[str, bool]:
        """The ``///`` lines right before what comes next, and whether there is an empty line before that."""
        lines: list[str] = []
        blank = False
        while True:
            if self._is_after_blank_line():
                blank, lines = True, []
            line = self._match(r"///[ ]?([^\n]*)\n")
            if line:
                lines.append(line[1])
            elif self._match(r"#(?:[^\n\\]|\\\n|\\.)*"):
                lines = []
            elif not self._match(r"//[^\n]*|/\*.*?\*/"):
                return "\n".join(lines), blank

    def _is_after_blank_line(self) -> bool:
        """Skips white space."""
        space = self._match(r"\s*")
        assert space is not None
        new_lines = space[0].count("\n")
        return new_lines > (0 if self._text[: space.start()].endswith("\n") else 1)

    def _match(self, pattern: str) -> re.Match[str] | None:
        match = re.compile(pattern, re.S).match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def _error(self, what: str) -> ValueError:
        return ValueError(f"line {self._text.count(chr(10), 0, self._at) + 1}: {what}")


def _tidy(text: str) -> str:
    """In one line."""
    return " ".join(text.split())


def _tidy_lines(text: str) -> str:
    return _MACRO.sub("", text).rstrip(";").strip()
