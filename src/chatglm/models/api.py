"""placeholder"""

class ChatMixin: pass
