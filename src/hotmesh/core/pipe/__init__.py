"""The mapping language from within: values, conversions, the compiler, and one module of functions for each domain."""
