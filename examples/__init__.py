"""Programs that show what Tessera is for."""
