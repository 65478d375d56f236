"""`python -m services.notification …`"""

from services.chassis.cli import main
from services.notification.app import create_app
from services.notification.settings import Settings

if __name__ == "__main__":
    main(Settings, create_app)
