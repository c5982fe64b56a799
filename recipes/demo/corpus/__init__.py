"""The demo model's corpus: every sentence is made here, from grammars, so that what is held out is really unseen."""
