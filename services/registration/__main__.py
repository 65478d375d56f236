"""`python -m services.registration …`"""

from services.chassis.cli import main
from services.registration.app import create_app
from services.registration.settings import Settings

if __name__ == "__main__":
    main(Settings, create_app)
