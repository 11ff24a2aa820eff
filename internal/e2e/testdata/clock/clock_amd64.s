#include "textflag.h"

// func hook()
TEXT ·hook(SB), NOSPLIT, $0-0
	MOVQ runtime·vdsoClockgettimeSym(SB), AX
	MOVQ AX, ·vdso(SB)
	LEAQ ·skewed(SB), AX
	MOVQ AX, runtime·vdsoClockgettimeSym(SB)
	RET

// skewed is called as C is: DI is the clock, and SI where its time goes, seconds first. CLOCK_REALTIME is 0.
TEXT ·skewed(SB), NOSPLIT|NOFRAME, $0-0
	PUSHQ DI
	PUSHQ SI
	SUBQ  $8, SP
	MOVQ  ·vdso(SB), AX
	CALL  AX
	ADDQ  $8, SP
	POPQ  SI
	POPQ  DI
	TESTL DI, DI
	JNE   done
	MOVQ  ·ahead(SB), CX
	ADDQ  CX, (SI)

done:
	RET
