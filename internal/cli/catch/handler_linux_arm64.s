#include "textflag.h"

// The kernel calls handler on the thread's signal stack, with the signal in R0, and
// puts all registers back. It is no Go: there may be no goroutine.
TEXT handler<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUB	$16, RSP
	MOVB	R0, 8(RSP)
	MOVW	·writeEnd(SB), R0
	ADD	$8, RSP, R1
	MOVD	$1, R2
	MOVD	$64, R8 // write
	SVC
	ADD	$16, RSP
	RET

TEXT restorer<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVD	$139, R8 // rt_sigreturn
	SVC
	BRK

// func handlers() (handler, restorer uintptr)
TEXT ·handlers(SB),NOSPLIT,$0-16
	MOVD	$handler<>(SB), R0
	MOVD	R0, handler+0(FP)
	MOVD	$restorer<>(SB), R0
	MOVD	R0, restorer+8(FP)
	RET
