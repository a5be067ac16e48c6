"""The vocabulary of deciding and remembering; imports nothing but values, enums and errors.

job      a job, the records of its activities, and what can happen to it
step     what one step changes, committed as a whole or not at all
retry    how often work is tried
span     what is told of a step to who traces it
"""
