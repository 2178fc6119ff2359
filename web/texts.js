// Everything the visitor reads, in Korean and in English, and the switch between them.
import { kept } from "./dom.js";
import { hours } from "./time.js";

const LANGUAGES = ["ko", "en"];
const TEXTS = {
  title: ["카드 상담 챗봇", "Card assistant"],
  skip: ["질문 입력으로 건너뛰기", "Skip to the question field"],
  hello: ["안녕하세요, 무엇을 도와드릴까요?", "Hello, how can we help?"],
  about: [
    "카드 추천과 혜택, 자주 묻는 질문, 금융 용어를 대화로 알려 드립니다. 데모 고객으로 로그인하면 소비에 맞는 카드도 추천해 드립니다.",
    "Ask about cards, benefits, frequent questions and financial terms. Log in as a demo customer for a card that suits your spending. Answers are in Korean.",
  ],
  menu: ["메뉴", "Menu"],
  faq: ["자주 묻는 질문", "Frequent questions"],
  terms: ["금융 용어", "Financial terms"],
  more: ["더 보기", "Show more"],
  "list.failed": ["목록을 불러오지 못했습니다.", "The list could not be loaded."],
  "list.empty": ["아직 없습니다.", "Nothing here yet."],
  again: ["다시 시도", "Try again"],
  close: ["닫기", "Close"],
  fresh: ["새 대화", "New conversation"],
  "fresh.ask": ["새 대화를 시작할까요?", "Start a new conversation?"],
  "fresh.why": ["지금 대화는 이 화면에서 사라집니다.", "This conversation disappears from the page."],
  "fresh.yes": ["새로 시작", "Start new"],
  "fresh.no": ["취소", "Cancel"],
  language: ["English", "한국어"],
  log: ["대화 내용", "Conversation"],
  prompt: ["질문", "Your question"],
  "prompt.hint": ["궁금한 점을 입력하세요", "Type a question"],
  keys: ["Enter로 보내기, Shift+Enter로 줄 바꾸기", "Enter sends, Shift+Enter starts a new line"],
  touch: ["", ""],
  cut: ["질문은 4,000자까지 보낼 수 있어 나머지는 잘랐습니다.", "A question may have 4,000 characters, so the rest was cut off."],
  left: ["{n}자 남음", "{n} characters left"],
  full: ["질문 {n}개가 답변을 기다리고 있습니다.", "{n} questions are waiting for an answer."],
  send: ["보내기", "Send"],
  latest: ["새 답변 보기", "Show the new answer"],
  typing: ["답변을 준비하고 있습니다", "Preparing an answer"],
  "typing.on": ["답변을 쓰고 있습니다", "Writing the answer"],
  "typing.long": ["답변이 오래 걸리고 있습니다. 자리를 비우셔도 답변은 여기에 남습니다", "This is taking longer. The answer will be kept here if you leave"],
  "typing.cut": ["다시 연결되면 답변을 이어서 받습니다", "The answer follows once we are connected again"],
  "doing.get_card_description": ["카드를 찾는 중…", "Looking up the card…"],
  "doing.get_card_recommendation": ["카드를 고르는 중…", "Choosing cards…"],
  "doing.query_faq_database": ["FAQ를 찾는 중…", "Searching the FAQ…"],
  "doing.query_term_database": ["용어를 찾는 중…", "Looking up the term…"],
  "doing.consumption_recommend": ["소비를 살펴보는 중…", "Looking at your spending…"],
  stop: ["답변 중지 (Esc)", "Stop the answer (Esc)"],
  stopping: ["중지하고 있습니다", "Stopping"],
  stopped: ["중지됨", "Stopped"],
  seconds: ["{n}초", "{n} s"],
  you: ["나", "You"],
  bot: ["챗봇", "Assistant"],
  reply: ["“{text}”에 대한 답변", "In reply to “{text}”"],
  related: ["이어서 물어보기", "Related questions"],
  cards: ["카드", "Cards"],
  "cut.answer": ["답변이 길어 여기까지만 보여 드립니다. 복사하면 전부 볼 수 있습니다.", "The answer is too long to show all of it. Copy it to have the rest."],
  "cut.cards": ["외 {n}장이 더 있습니다.", "There are {n} more."],
  "trouble.status": ["LLM 서버 오류 (HTTP {n})", "LLM server error (HTTP {n})"],
  "trouble.timeout": ["LLM 서버 통신 오류: 응답 시간이 초과되었습니다.", "LLM server error: it took too long to answer."],
  "trouble.unreachable": ["LLM 서버 통신 오류: 서버에 연결할 수 없습니다.", "LLM server error: it cannot be reached."],
  "trouble.format": ["LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다.", "LLM server error: its reply makes no sense."],
  "trouble.stopped": ["답변이 중지되었습니다.", "The answer was stopped."],
  "card.ask": ["자세히 알아보기", "Tell me more"],
  "fact.annual_fee": ["연회비(원)", "Annual fee (KRW)"],
  "fact.categories": ["분야", "For"],
  "fact.benefits": ["혜택", "Benefits"],
  good: ["도움이 됐어요", "Helpful"],
  bad: ["도움이 안 됐어요", "Not helpful"],
  rate: ["이 답변 평가", "Rate this answer"],
  "rate.failed": ["평가를 저장하지 못했습니다", "Your rating was not saved"],
  "tool.get_card_description": ["카드 안내", "Card details"],
  "tool.get_card_recommendation": ["카드 추천", "Card recommendation"],
  "tool.query_faq_database": ["자주 묻는 질문", "Frequent question"],
  "tool.query_term_database": ["금융 용어", "Financial term"],
  "tool.consumption_recommend": ["소비 맞춤 추천", "Matched to your spending"],
  login: ["데모 고객으로 로그인", "Log in as a demo customer"],
  "login.why": ["고객을 고르면 소비에 맞는 카드를 추천해 드립니다.", "Choose a customer for a card that suits their spending."],
  "login.busy": ["{name} 님에게 맞는 카드를 찾고 있습니다…", "Looking for cards for {name}…"],
  "login.done": ["{name} 님으로 로그인했습니다.", "Logged in as {name}."],
  "login.over": ["데모 고객으로 로그인했습니다.", "Logged in as a demo customer."],
  "login.failed": ["추천을 받지 못했습니다. 잠시 후 다시 골라 주세요.", "There is no recommendation yet. Please choose again in a moment."],
  "state.connecting": ["연결하고 있습니다", "Connecting"],
  "state.online": ["연결됨", "Connected"],
  "state.waiting": ["연결이 끊겨 다시 연결합니다", "Disconnected, reconnecting"],
  "state.offline": ["인터넷에 연결되어 있지 않습니다", "No internet connection"],
  "state.restarting": ["서버를 다시 시작하고 있습니다", "The server is restarting"],
  "state.busy": ["접속이 많아 잠시 후 다시 연결합니다", "The service is busy, reconnecting soon"],
  "state.limited": ["메시지가 너무 많아 잠시 쉬어 갑니다", "Paused after too many messages"],
  "state.taken": ["이 대화를 다른 탭에서 이어 가고 있습니다", "This conversation goes on in another tab"],
  next: ["(다음 시도 {n}초 후)", "(next try in {n} s)"],
  reconnect: ["지금 연결", "Connect now"],
  takeover: ["여기서 계속하기", "Continue here"],
  replaced: ["이전 대화를 이어 갈 수 없어 새 대화를 시작했습니다.", "The earlier conversation could not be continued. This is a new one."],
  later: ["연결되면 보냅니다", "Will be sent once connected"],
  resend: ["다시 보내기", "Send again"],
  "error.invalid": ["보낼 수 없는 메시지입니다.", "This message cannot be sent."],
  "error.db": ["메시지를 저장하지 못했습니다.", "The message could not be stored."],
  "error.unknown": ["문제가 생겨 답변하지 못했습니다.", "Something went wrong."],
  "error.pending": ["답변을 기다리는 질문이 너무 많습니다.", "Too many questions are waiting."],
  "error.rate": ["메시지를 너무 빨리 보내고 있습니다.", "You are sending messages too fast."],
  frames: ["주고받은 데이터", "Frames and calls"],
  "frames.about": ["이 페이지와 게이트웨이가 주고받는 WebSocket 프레임과 REST 호출입니다.", "The WebSocket frames and REST calls between this page and the gateway."],
  docs: ["API 문서", "API docs"],
  clear: ["지우기", "Clear"],
  copy: ["복사", "Copy"],
  copied: ["복사함", "Copied"],
  "frame.sent": ["보냄", "Sent"],
  "frame.got": ["받음", "Received"],
  "frame.open": ["연결", "Open"],
  "frame.close": ["닫힘", "Closed"],
};

// The assistant answers in Korean, so the questions stay Korean; the second text is their meaning.
export const EXAMPLES = [
  ["해외여행에 좋은 카드를 추천해 주세요", "Recommend a card for travelling abroad"],
  ["내 소비에 맞는 카드를 추천해 주세요", "Recommend a card that suits my spending"],
  ["커피와 배달 할인이 되는 카드가 있나요?", "Is there a card for coffee and deliveries?"],
  ["카드를 잃어버렸는데 어떻게 신고하나요?", "How do I report a lost card?"],
];

const saved = kept("localStorage", "chat-language");
let language = LANGUAGES.includes(saved.get()) ? saved.get() : "ko";

/** The key and values of a sentence that the gateway says in Korean, where it is one of those; otherwise null. */
export function known(message) {
  const [, n] = /^LLM 서버 오류 \(HTTP (\d+)\)$/.exec(message) ?? [];
  if (n) return ["trouble.status", { n }];
  const key = Object.keys(TEXTS).find((one) => one.startsWith("trouble.") && TEXTS[one][0] === message);
  return key ? [key, {}] : null;
}

export const hasText = (key) => key in TEXTS;

/** The text for `key` in the visitor's language, `{name}` filled from `values`. */
export function text(key, values = {}) {
  return TEXTS[key][LANGUAGES.indexOf(language)].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Gives `node` the text of `key`, now and after every switch of the language. */
export function say(node, key, values = {}) {
  node.dataset.t = key;
  node.dataset.values = JSON.stringify(values);
  render(node);
  return node;
}

function render(node) {
  const { t, label, hint, values = "{}" } = node.dataset;
  const next = t && text(t, JSON.parse(values));
  if (t && node.textContent !== next) node.textContent = next; // setting it again would have it read out again
  if (label) node.setAttribute("aria-label", text(label));
  if (hint) node.placeholder = text(hint);
}

/** Makes a `<time>` show an ISO 8601 timestamp as hours and minutes. */
export function clock(node, timestamp) {
  node.dateTime = timestamp;
  node.textContent = hours(timestamp, language);
  return node;
}

/** Renders every text below `root` in the visitor's language. */
export function translate(root) {
  root.querySelectorAll("[data-t], [data-label], [data-hint]").forEach(render);
  root.querySelectorAll("time").forEach((node) => clock(node, node.dateTime));
}

/** The language of the page, `ko` or `en`. */
export const spoken = () => language;

/** Switches the whole page to Korean or English. */
export function speak(next) {
  language = next;
  saved.set(next);
  document.documentElement.lang = next;
  document.title = text("title");
  translate(document);
}
