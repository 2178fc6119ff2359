"""The demo's cards: which of them suit a text, and how they read in an answer."""

import json
from pathlib import Path
from typing import TypedDict

DATA = Path(__file__).parent / "data"


class Card(TypedDict):
    name: str
    summary: str
    annual_fee: int  # won a year
    categories: list[str]  # the first is what the card is made for
    benefits: list[str]


CARDS: list[Card] = json.loads((DATA / "cards.json").read_text("utf-8"))
CATEGORY_WORDS: dict[str, list[str]] = json.loads((DATA / "categories.json").read_text("utf-8"))

FOR_EVERYONE = ["적립", "외식·배달", "온라인 쇼핑"]  # where nobody has said what they spend on


def categories_in(text: str) -> list[str]:
    """The spending categories that a question or a persona's description speaks of."""
    padded = f" {text}"  # a word written with a leading space matches only at the start of a word
    return [name for name, words in CATEGORY_WORDS.items() if any(word in padded for word in words)]


def cards_for(categories: list[str], limit: int = 3) -> list[Card]:
    """The cards that cover most of the categories, best first."""

    def score(card: Card) -> int:
        main = card["categories"][0] in categories
        return 2 * len(set(card["categories"]) & set(categories)) + main

    ranked = sorted(CARDS, key=score, reverse=True)
    return [card for card in ranked if score(card) > 0][:limit]


def cards_named_in(text: str) -> list[Card]:
    """The cards whose name stands in the text, written with or without the maker's name and spaces."""
    squeezed = text.replace(" ", "")
    return [card for card in CARDS if card["name"].removeprefix("도담 ").replace(" ", "") in squeezed]


def fee(card: Card) -> str:
    return f"연회비 {card['annual_fee']:,}원" if card["annual_fee"] else "연회비 없음"


def as_list(cards: list[Card]) -> str:
    """The cards as a markdown list, a line each."""
    return "\n".join(f"- **{card['name']}**: {card['benefits'][0]}, {fee(card)}" for card in cards)


def as_description(card: Card) -> str:
    """Everything about one card, in markdown."""
    benefits = "\n".join(f"- {benefit}" for benefit in card["benefits"])
    return f"**{card['name']}** ({fee(card)})\n{card['summary']}\n\n{benefits}"
