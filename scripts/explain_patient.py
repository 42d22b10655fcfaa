"""Show one patient: visits, codes, the risk as it develops, and what moves it.

python scripts/explain_patient.py --model-dir output/finetune --patient-id 7 --output-dir output/patient
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("explain")
