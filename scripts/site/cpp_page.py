"""Writes what cpp_declarations reads as Markdown."""

from __future__ import annotations

from cpp_declarations import Declaration, Header

_WIDTH = 84  # what the page shows without scrolling


def page_of(header: Header, include: str) -> str:
    """A section for a header: ``include`` is its name in an ``#include``."""
    lines = [f"## {include}", "", *_code(f"#include <{include}>"), header.comment, ""]
    for group in _groups(header.declarations):
        lines += [f"### {group[0].name} {{ #{anchor(group[0])} }}", ""]
        lines += _declared(group)
    return "\n".join(lines)


def anchor(declaration: Declaration) -> str:
    """Where the page has it; a function and a type of one name do not occur in C++."""
    return f"cpp-{declaration.name}"


def _groups(declarations: list[Declaration]) -> list[list[Declaration]]:
    """Functions that share a comment stand together: overloads, and what a class needs to be copied or not."""
    groups: list[list[Declaration]] = []
    for declaration in declarations:
        if declaration.joined and groups and groups[-1][0].kind == declaration.kind == "function":
            groups[-1].append(declaration)
        else:
            groups.append([declaration])
    return groups


def _declared(group: list[Declaration]) -> list[str]:
    first = group[0]
    if not first.members:
        return [*_code("\n".join(_signature(one) for one in group)), first.comment, ""]
    if all(member.kind == "field" for member in first.members):
        return [*_code(_fields(first)), first.comment, ""]
    lines = [*_code(f"{first.text};"), first.comment, ""]
    for members in _groups(first.members):
        lines += [*_code("\n".join(_signature(one) for one in members)), members[0].comment, ""]
    return lines


def _fields(structure: Declaration) -> str:
    lines = [f"{structure.text} {{"]
    for member in structure.members:
        lines += [f"  // {line}" for line in member.comment.splitlines()] + [f"  {member.text};"]
    return "\n".join([*lines, "};"])


def _signature(declaration: Declaration) -> str:
    """In one line if it is short enough, else with a line for each parameter."""
    text = declaration.text.replace("( ", "(")
    if len(text) <= _WIDTH or declaration.kind != "function":
        return f"{text};"
    begin, end = text.index("("), text.rindex(")")
    parameters = _split(text[begin + 1 : end])
    return f"{text[:begin]}(\n    " + ",\n    ".join(parameters) + f"){text[end + 1 :]};"


def _split(parameters: str) -> list[str]:
    """At the commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in parameters:
        depth += (character in "<({[") - (character in ">)}]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _code(text: str) -> list[str]:
    return ["```cpp", text, "```", ""]
