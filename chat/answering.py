"""How a prompt is answered: from memory, by the LLM server, or by saying that it was stopped."""

from dataclasses import dataclass

from chat.answers import Answers
from chat.drafts import Drafts
from chat.qna import Qna
from chat.turn import OUTCOMES, Turn
from common import metrics
from common.errors import LLM_TIMEOUT, STOPPED
from upstream.call import Call, Stopped
from upstream.llm import LlmFailed, LlmServer
from upstream.replies import Answer


@dataclass(eq=False)
class Answering:
    """Finds the answer to a turn and hands it on to be stored. Holds no database connection meanwhile."""

    qna: Qna
    llm_server: LlmServer
    drafts: Drafts
    answers: Answers

    async def answer(self, turn: Turn) -> None:
        turn.mark("wait")
        known = self.qna.find(turn.text)
        if turn.is_stopped:
            outcome, answer = "stopped", _stopped("")
        elif turn.is_too_old:
            outcome, answer = "too_old", Answer(LLM_TIMEOUT)
        elif known is not None:
            outcome, answer = known.kind, known.answer
            known.count_view()
        else:
            outcome, answer = await self._ask(turn)
            turn.mark("upstream")
        OUTCOMES[outcome].inc()  # now: storing the answer may take as long as the database is away
        await self.answers.store(turn, answer)
        turn.log(outcome)

    async def _ask(self, turn: Turn) -> tuple[str, Answer]:
        turn.call, draft = Call(), self.drafts.open(turn)
        try:
            request_id = str(turn.message_id)
            return "llm", await self.llm_server.dispatch(turn.text, turn.session_id, request_id, turn.call, draft)
        except LlmFailed as failed:
            return "llm_failed", Answer(str(failed))
        except Stopped:
            return "stopped", _stopped(draft.since(0))
        finally:
            self.drafts.close(draft)
            if draft.pieces:
                turn.pieces = draft.pieces
                turn.milliseconds["first_delta"] = int((draft.first_at - turn.started_at) * 100_000) / 100
                metrics.first_delta.observe(draft.first_at - turn.started_at)


def _stopped(text: str) -> Answer:
    return Answer(text if text.strip() else STOPPED, None, {"login_required": False, "stopped": True})
