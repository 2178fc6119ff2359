"""What is answered to a prompt: from memory, or by the LLM server."""

from __future__ import annotations

from chat.answers import Answers
from chat.qna import Qna
from chat.turn import OUTCOMES, Turn
from common.errors import LLM_TIMEOUT
from upstream.llm import LlmServer
from upstream.replies import Answer


class Answering:
    """Finds the answer to a turn and has it stored. Holds nothing, and no database connection meanwhile."""

    def __init__(self, qna: Qna, llm_server: LlmServer, answers: Answers) -> None:
        self._qna = qna
        self._llm_server = llm_server
        self._answers = answers

    async def answer(self, turn: Turn) -> None:
        turn.mark("wait")
        known = self._qna.find(turn.text)
        if turn.is_too_old:
            outcome, answer = "too_old", Answer(LLM_TIMEOUT)
        elif known is not None:
            outcome, answer = known.kind, known.answer
            known.count_view()
        else:
            outcome = "llm"
            answer = await self._llm_server.dispatch(turn.text, turn.session_id, str(turn.message_id))
            turn.mark("upstream")
        OUTCOMES[outcome].inc()  # now: to store the answer may take as long as the database is away
        await self._answers.store(turn, answer)
        turn.log(outcome)
