"""Prints every message that the sources under the FOLDERS make, once, file by file, and complains of those that do not keep to
the one language: a setting is "Struct::field = value; it must be …", a message of one sentence has no full stop, and none is said
in two places.

usage: tests/messages_test.py FOLDER...     status 1 if there is a complaint
"""
import collections
import pathlib
import re
import sys

CALL = re.compile(r'\b(?:require|refuse|message|say)(?:<[\w:]+>)?\(')
LITERAL = re.compile(r'\s*"((?:[^"\\\n]|\\.)*)"')


def messages(text):
    """The first string literal in each call, with those that follow it at once."""
    for call in CALL.finditer(text):
        depth, at = 1, call.end()
        while at < len(text) and depth > 0:
            if literal := LITERAL.match(text, at):
                parts = [literal.group(1)]
                at = literal.end()
                while more := LITERAL.match(text, at):
                    parts.append(more.group(1))
                    at = more.end()
                # Deeper than this call's own arguments it belongs to another call; a text without a space is a part of one.
                if depth == 1 and " " in "".join(parts):
                    yield "".join(parts)
                    break
                continue
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(text[at], 0)
            at += 1


def complaints(message):
    if re.match(r"[A-Z]\w*::\w+ ", message) and "; " not in message:
        yield 'a setting is "Struct::field = value; it must be …", or ends with another cure'
    if re.search(r"\b\w+Options\.\w", message):
        yield "a field is Struct::field"
    if message.endswith(".") and ". " not in message:
        yield "a message of one sentence has no full stop"
    if re.search(r"[a-z]  [a-z]", message):
        yield "two spaces"


def main(folders):
    said = collections.defaultdict(list)
    failed = False
    for folder in folders:
        for path in sorted(pathlib.Path(folder).rglob("*.cpp")):
            found = list(messages(path.read_text()))
            if found:
                print(f"\n{path}")
            for message in found:
                print(f"  {message}")
                said[message].append(str(path))
                for complaint in complaints(message):
                    failed = True
                    print(f"  ^ {complaint}")
    for message, places in said.items():
        if len(places) > 1 and len(message) > 40:
            failed = True
            print(f"\nsaid in {', '.join(places)}:\n  {message}\n  ^ a message stands once")
    print(f"\n{len(said)} messages")
    if not said:
        print("no message was found: this would prove nothing")
    return failed or not said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
