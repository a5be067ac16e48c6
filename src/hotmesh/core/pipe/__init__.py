"""The mapping language from within: expression → nodes → closure. `core/mapping.py` is its face.

From text to closures:

compiler       an expression to its tree of nodes
nodes          the nodes, and how each becomes a closure
path           `{a.output.data.x}` as a closure
writes         what a `job.maps` block writes
environment    what impure functions need from the world
function       a function as the compiler sees it
meter          how much work a reduce may do
table          all functions by name
reference      their documentation

Values:

coercion       conversions and comparisons
keys           which keys are indexes, and the order of keys
property       own members of any value
guarded        objects and arrays with hidden or fixed members
stored         values as JSON stores them
instant        dates as values
dates          which instant an argument means
zone           the names of time zones
intl           dates as people write them
collation      the order of texts
pattern        regular expressions

Functions, a module for each domain: array, bitwise, conditional, cron, date, json, logical, math, number, object, string,
symbol, unary.
"""
