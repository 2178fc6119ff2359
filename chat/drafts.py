"""Drafts shown to visitors who opted in, here and on other instances, while their answers are being made.

A draft is a preview: nothing of it is stored, nothing of it is queued, and nothing of it is sent after the answer.
"""

import asyncio
import time
from typing import Any
from uuid import UUID

from chat.draft import Draft, View
from chat.session import Session
from chat.sessions import Sessions
from chat.turn import Turn
from common import metrics
from common.tasks import TaskOwner
from database.notices import Notifier

LEASE_SECONDS = 2.5  # an instance that wants to see a draft asks again every second
ELSEWHERE_SECONDS = 0.4  # between two notices of a draft
PIECE_CHARS = 1200  # a notice has at most 8,000 bytes, and JSON takes up to six for a character


class Drafts:
    """The drafts being made here, by session, and mirrors of those that other instances make, by prompt."""

    def __init__(self, instance_id: int, sessions: Sessions, notifier: Notifier, delta_seconds: float) -> None:
        self._instance_id = instance_id
        self._sessions = sessions
        self._notifier = notifier
        self._delta_seconds = delta_seconds
        self._made: dict[UUID, Draft] = {}
        self._mirrors: dict[UUID, Draft] = {}
        self.tasks = TaskOwner("drafts")

    def __len__(self) -> int:
        return len(self._made)

    def open(self, turn: Turn) -> Draft:
        """Begins the draft of a turn whose LLM server is about to be asked."""
        draft = self._made[turn.session_id] = Draft(turn.session_id, turn.message_id, turn.attempt)
        self._show_here(draft)
        return draft

    def close(self, draft: Draft) -> None:
        """Ends a draft; nothing of it is shown any more."""
        draft.close()
        if self._made.get(draft.session_id) is draft:
            del self._made[draft.session_id]

    def attach(self, session: Session) -> None:
        """Shows a session that was opened or resumed here what is being made for it, from now on."""
        session.wants_drafts = True
        if draft := self._made.get(session.id):
            self._show_here(draft)

    def _show_here(self, draft: Draft) -> None:
        session = self._sessions.find(draft.session_id)
        if session is not None and session.wants_drafts:
            if draft.here is None or draft.here.session is not session:
                draft.here = View(session)
                draft.there.clear()
            self._begin_to_show(draft)

    def _begin_to_show(self, draft: Draft) -> None:
        draft.has_news.set()
        if not draft.is_shown:
            draft.is_shown = True
            self.tasks.start(self._show(draft))

    async def _show(self, draft: Draft) -> None:
        """Shows what is new at once, and what comes soon after it together; for as long as somebody wants to see it."""
        while draft.is_open and (draft.here or draft.there):
            draft.has_news.clear()
            has_shown = bool(draft.here) and await self._send(draft)
            for instance_id, view in list(draft.there.items()):
                await self._notify(draft, instance_id, view)
            if has_shown or any(draft.is_news_to(view) for view in (draft.here, *draft.there.values()) if view):
                await asyncio.sleep(self._delta_seconds)
            elif not draft.has_news.is_set():
                await draft.has_news.wait()  # no longer than the LLM server may take
        draft.is_shown = False

    async def _send(self, draft: Draft) -> bool:
        """Sends the session what it has not been shown, if it is reading; returns whether that was text."""
        view, session = draft.here, draft.here.session if draft.here else None
        if view is None or session is None or not session.socket.is_open or draft.message_id in session.answered:
            draft.here = None
            return False
        if not session.socket.is_idle():
            return False
        # None of these frames waits, since the socket is idle, and only the last is long.
        if view.attempt != draft.attempt:
            view.attempt, view.offset, view.tool_name = draft.attempt, 0, None
            await session.socket.send(draft.to_frame("start"))
        if draft.tool_name and view.tool_name != draft.tool_name:
            view.tool_name = draft.tool_name
            await session.socket.send(draft.to_frame("tool", tool_name=draft.tool_name))
        offset, view.offset = view.offset, draft.length
        if has_text := offset < view.offset:
            metrics.deltas.inc()
            await session.socket.send(draft.to_frame("delta", offset=offset, text=draft.since(offset)))
        return has_text

    async def _notify(self, draft: Draft, instance_id: int, view: View) -> None:
        """Sends the instance that has the session what is new to it, a few times a second."""
        now = time.monotonic()
        if now > view.lease_ends:
            draft.there.pop(instance_id, None)
        elif now >= view.due and draft.is_news_to(view):
            offset = view.offset if view.attempt == draft.attempt else 0
            text, words = draft.since(offset), list[dict[str, Any]]()
            view.attempt, view.offset, view.tool_name = draft.attempt, draft.length, draft.tool_name
            view.due = now + ELSEWHERE_SECONDS
            about = {"type": "draft", "message_id": str(draft.message_id), "tool_name": draft.tool_name}
            for start in range(0, len(text) or 1, PIECE_CHARS):
                piece = text[start : start + PIECE_CHARS]
                words.append(about | {"attempt": draft.attempt, "offset": offset, "text": piece})
                offset += len(piece.encode("utf-16-le")) // 2
            metrics.previewed_bytes.inc(await self._notifier.tell(instance_id, words))

    def watch(self, word: dict[str, Any]) -> None:
        """Another instance, where the session is, has this much of a draft and wants the rest, if it is made here."""
        draft = self._made.get(UUID(word["session_id"]))
        if draft is not None and draft.message_id == UUID(word["message_id"]):
            view = draft.there.setdefault(word["instance_id"], View())
            view.lease_ends = time.monotonic() + LEASE_SECONDS
            # If that is less than it was sent, a notice was lost.
            view.attempt, view.offset = min((view.attempt, view.offset), (word["attempt"], word["offset"]))
            self._begin_to_show(draft)

    async def follow(self, session_id: UUID, message_id: UUID, instance_id: int) -> None:
        """Mirrors a draft of another instance for a session that is here; to be called again every second."""
        draft = self._mirrors.setdefault(message_id, Draft(session_id, message_id, 0))
        self._show_here(draft)
        word = {"type": "watch", "message_id": str(message_id), "session_id": str(session_id)}
        more = {"instance_id": self._instance_id, "attempt": draft.attempt, "offset": draft.length}
        await self._notifier.tell(instance_id, [word | more])

    def unfollow(self, message_id: UUID) -> None:
        if draft := self._mirrors.pop(message_id, None):
            draft.close()

    def mirror(self, word: dict[str, Any]) -> None:
        """Takes a piece of a draft that is followed here from the instance that makes it."""
        if draft := self._mirrors.get(UUID(word["message_id"])):
            draft.mirror(word["attempt"], word["offset"], word["text"], word["tool_name"])
            self._show_here(draft)
