"""The till's abbreviations in the data, spelt out: names that people can read, and that a language model knows."""

import re

import pandas as pd

WORDS = {
    "bg": "bags",
    "bkd": "baked",
    "bn": "beans",
    "brkfst": "breakfast",
    "btl": "bottle",
    "btr": "butter",
    "carb": "carbonated",
    "chix": "chicken",
    "choc": "chocolate",
    "cleang": "cleaning",
    "crbntd": "carbonated",
    "crmd": "creamed",
    "crystl": "crystal",
    "dnr": "dinner",
    "dnrs": "dinners",
    "dogfd": "dog food",
    "drinkng": "drinking",
    "drnk": "drinks",
    "drnking": "drinking",
    "drnkng": "drinking",
    "drnks": "drinks",
    "drsng": "dressing",
    "dsh": "dishes",
    "excp": "except",
    "fd": "food",
    "flvrd": "flavored",
    "frz": "frozen",
    "frzn": "frozen",
    "gds": "goods",
    "gm": "store",
    "incl": "",
    "jce": "juice",
    "misc": "miscellaneous",
    "mixs": "mixes",
    "mlt": "multi",
    "mneral": "mineral",
    "mnrl": "mineral",
    "mx": "mixes",
    "mxs": "mixes",
    "pckgd": "packaged",
    "pkg": "package",
    "pkld": "pickled",
    "pnt": "peanut",
    "prep": "prepared",
    "pwdr": "powder",
    "refrgratd": "refrigerated",
    "refrig": "refrigerated",
    "rw": "raw",
    "sald": "salad",
    "saucessalsapicantee": "sauces, salsa",
    "sft": "soft",
    "sgl": "single",
    "sherbts": "sherbets",
    "sndwch": "sandwich",
    "sngl": "single",
    "specilaty": "specialty",
    "sply": "supplies",
    "sprd": "spreads",
    "srv": "serve",
    "sv": "serve",
    "sw": "sweet",
    "sweetners": "sweeteners",
    "tiss": "tissue",
    "tort": "tortilla",
    "trsh": "trash",
    "veg": "vegetables",
    "vend": "vending",
    "wat": "water",
    "wate": "water",
    "whl": "whole",
    "whlsm": "wholesome",
    "wt": "weight",
    "wtr": "water",
}

_WORD = re.compile(r"\b({})\b".format("|".join(map(re.escape, WORDS))))
_UNCLOSED = r"\s*\([^)]*$"  # the till cuts after thirty letters


def spelt_out(names: pd.Series) -> pd.Series:
    """'FRZN ICE (5 LB' as 'Frozen ice'."""
    readable = names.str.lower().str.replace(_UNCLOSED, "", regex=True)
    readable = readable.str.replace(_WORD, lambda match: WORDS[match[0]], regex=True)
    return readable.str.split().str.join(" ").str.capitalize()
