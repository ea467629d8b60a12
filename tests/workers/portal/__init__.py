"""The portal worker's own parts."""
