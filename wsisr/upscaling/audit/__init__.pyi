from .run import AuditRequest as AuditRequest
from .run import AuditResult as AuditResult
from .run import audit as audit
