//! A store in a MongoDB replica set, for many machines.
