"""What is answered to a prompt: from memory, or by the LLM server."""

from dataclasses import dataclass

from chat.answers import Answers
from chat.qna import Qna
from chat.turn import OUTCOMES, Turn
from common.errors import LLM_TIMEOUT
from upstream.llm import LlmServer
from upstream.replies import Answer


@dataclass(eq=False)
class Answering:
    """Finds the answer to a turn and hands it on to be stored. Holds no database connection meanwhile."""

    qna: Qna
    llm_server: LlmServer
    answers: Answers

    async def answer(self, turn: Turn) -> None:
        turn.mark("wait")
        known = self.qna.find(turn.text)
        if turn.is_too_old:
            outcome, answer = "too_old", Answer(LLM_TIMEOUT)
        elif known is not None:
            outcome, answer = known.kind, known.answer
            known.count_view()
        else:
            outcome = "llm"
            answer = await self.llm_server.dispatch(turn.text, turn.session_id, str(turn.message_id))
            turn.mark("upstream")
        OUTCOMES[outcome].inc()  # now: to store the answer may take as long as the database is away
        await self.answers.store(turn, answer)
        turn.log(outcome)
