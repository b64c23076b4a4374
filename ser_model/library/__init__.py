"""A team's library: clips and what was heard in them, in a database of the team's own. `store.Library` opens it."""
