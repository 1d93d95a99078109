# Copyright 2026 jetcap_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What can go wrong between us and a server, and how its words are passed on."""

import json

MAX_WORDS = 400  # characters of a server's message that are passed on


class ServerError(RuntimeError):
    """A server that is not there, has gone, or does not answer as asked; says so in its words."""


class ServerOptionError(ServerError):
    """Options that cannot be: a mistake to correct, which waiting does not mend."""


def printable(text: str, most: int = MAX_WORDS) -> str:
    """Return a text as one line of bounded length without control characters."""
    line = ' '.join(''.join(c if c.isprintable() else ' ' for c in text[:4 * most]).split())
    return line if len(line) <= most else line[:most - 1] + '…'


def server_message(body: bytes) -> str:
    """Return what an error's body says: the message of its JSON, or its text."""
    text = body.decode('utf-8', 'replace')
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return printable(text)
    for key in ('error', 'message', 'detail'):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return printable(found if isinstance(found, str) else text)
