"""Lists JSON schemas that a small model can fill within 128 tokens: texts and lists are bounded."""

WORD = {"type": "string", "maxLength": 8}
SMALL = {"type": "integer", "minimum": 0, "maximum": 99}


def closed(required=None, **properties):
    """Return the schema of an object that has these properties and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False,
            "required": list(properties) if required is None else required}


SCHEMAS = {
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "integer": SMALL,
    "negative": {"type": "integer", "minimum": -20, "maximum": -3},
    "exclusive": {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 8},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 70},
    "number": {"type": "number", "minimum": 0.5, "maximum": 2.25},
    "word": WORD,
    "lengths": {"type": "string", "minLength": 3, "maxLength": 5},
    "pattern": {"type": "string", "pattern": "^[A-Z][a-z]{2,6}$"},
    "umlauts": {"type": "string", "pattern": "^[äöüß]{1,4}$"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "const": {"const": {"a": [1, "zwölf", None]}},
    "enum": {"enum": ["red", "green", 3, None, [1, 2], {"a": "\" \\ \n"}]},
    "types": {"type": ["boolean", "null"]},
    "any of": {"anyOf": [{"type": "boolean"}, closed(a=SMALL)]},
    "one of": {"oneOf": [closed(kind={"const": "cat"}, lives=SMALL),
                         closed(kind={"const": "dog"}, good={"type": "boolean"})]},
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 12}]},
    "list": {"type": "array", "items": SMALL, "maxItems": 4},
    "at least": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [WORD, SMALL], "items": False, "minItems": 2},
    "lists": {"type": "array", "maxItems": 2,
              "items": {"type": "array", "items": SMALL, "maxItems": 2}},
    "empty list": {"type": "array", "maxItems": 0},
    "object": closed(name=WORD, age=SMALL),
    "optional": closed(["a"], a=SMALL, b={"type": "boolean"}, c=WORD),
    "empty object": closed(),
    "nested": closed(a=closed(b=closed(c={"type": "boolean"}))),
    "objects": {"type": "array", "items": closed(x=SMALL, y=SMALL), "maxItems": 2},
    "open": {"type": "object", "properties": {"a": SMALL}, "required": ["a"],
             "additionalProperties": SMALL, "maxProperties": 1},
    "reference": {"$ref": "#/$defs/point",
                  "$defs": {"point": closed(x={"$ref": "#/$defs/n"}, y={"$ref": "#/$defs/n"}),
                            "n": SMALL}},
    "recursive": {"$ref": "#/$defs/chain", "$defs": {"chain": {
        "anyOf": [{"type": "null"}, closed(next={"$ref": "#/$defs/chain"})]}}},
    "odd names": closed(**{"a b": SMALL, "ä\"\\": {"type": "boolean"}, "": {"type": "null"}}),
    "titles": {"title": "T", "description": "D", "$schema": "http://json-schema.org/draft-07/schema",
               **closed(a={"title": "A", "description": "d", "default": 3, "type": "integer",
                           "minimum": 1, "maximum": 5})},
}
