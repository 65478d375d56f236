"""`python -m services.payment …`"""

from services.chassis.cli import main
from services.payment.app import create_app
from services.payment.settings import Settings

if __name__ == "__main__":
    main(Settings, create_app)
