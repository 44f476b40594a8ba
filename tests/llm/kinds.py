"""Texts by the number of tokens that tokenizers make of them."""

# Texts of which tokenizers make many tokens a byte, and ordinary ones.
KINDS = {
    "prose": "House cats purr when they are stroked. " * 10,
    "Finnish": "naiskirjailijat, kirjallisuudentutkimus, sukupuolentutkimus ja käännöstiede " * 5,
    "Polish": "Koty domowe mruczą, gdy się je głaszcze. " * 10,
    "digits": "1234567890 " * 40,
    "phone numbers": "+358 40 123 4567, 09-1234567; " * 14,
    "hexadecimal": "a3f9c07e1b2d 550e8400-e29b-41d4-a716-446655440000 " * 10,
    "punctuation": "!?#$%&*()[]{}~^ " * 26,
    "emoji": "🦄🐝🏠🧪" * 25,
    "rare characters": "龘靐齉爩" * 33,
    "Korean": "집고양이는 쓰다듬으면 가르랑거리고 새끼 고양이도 그렇다. " * 8,
    "code": "x=[[1,2],[3,4]];y={'a':0};" * 15,
}
