"""What is worth telling is noted with what happened, so that nobody's death in between loses it."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("paygent_django", "0004_deliveries")]
    operations = [
        migrations.CreateModel(
            name="WebhookNews",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("gate_pk", models.BigIntegerField(null=True)),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="paygent_django.enduser",
                    ),
                ),
            ],
            options={"db_table": "paygent_webhooknews"},
        ),
    ]
