"""Why a job does not move, from its rows to words. All but `explain` is pure.

text        the words for spans of time, counts and addresses
model       what is said: Explanation, its branches, their reasons; as data and as text
situation   what is known of a job, as one query reads it
reasons     what one obligation means, and what would end it
branches    what is open: obligations by activity and address, joins, and what left no trace
notes       what keeps or ended the job as a whole
explain     reads a situation, and those of awaited jobs, and tells what they mean
"""
