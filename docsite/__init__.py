"""What the documentation site is built with: MkDocs calls ``hooks.py``; ``reference.py`` writes the generated pages."""
