"""What uvicorn loads: ``topolora_monai.label_app.asgi:app``."""

from topolora_monai.label_app.server import create_application

app = create_application()
