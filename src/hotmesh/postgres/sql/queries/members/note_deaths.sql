-- note_deaths: whether engines of an app ($1) die one after the other.
select mesh.note_deaths($1)
