"""Graphs as their authors write them: text → `Document` → `App`, checked and frozen.

graph            the app, its graphs, activities and transitions, as written
parse            text or data to a document: references resolved, every node with its place
yaml_document    YAML or JSON text to nodes that know where they stand
build            a document to the graph: published keys are translated here, once
grammar          which keys may stand where
check            the rules that a graph must keep
check_flow       of these, those on transitions, hook rules and signals
check_keys       of these, that on keys which are accepted and ignored
check_values     of these, those on expressions and literals
unknown_keys     keys that nobody knows: a warning, or an error
report           collects problems, each with its place
manifest         what `plan` and `deploy` return, and the form an app is stored in
"""
