//! A client's session: opening, renewal, and what it observes of others.
